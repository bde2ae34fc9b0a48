"""Two addresses for a shop's own front end: the customer's points, and what the widget needs."""
