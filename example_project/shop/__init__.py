"""A small shop: catalogue, basket, checkout, a pretend payment and the customer's own orders."""
