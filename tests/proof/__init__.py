"""The proof of delivery: real processes are killed, real databases raced for, and the sandbox's ledger is read."""
