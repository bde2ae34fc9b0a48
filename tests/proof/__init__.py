"""The proof of delivery: real processes are killed, real databases raced for, and a ledger is read."""
