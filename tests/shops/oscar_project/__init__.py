"""A stock django-oscar shop, the smallest that can be bought in."""
