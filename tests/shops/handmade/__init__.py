"""A shop made by hand: the commonest Django shop."""
