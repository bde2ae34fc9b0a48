"""What the demo is made of: child processes, shoppers and the table."""
