"""A shop as plain as can be: what an order costs without us."""
