"""The OpenAPI document.

document   puts it together, from the table of routes
rows, row_schemas, v2    what it says of the routes that infer
parts      what it is made of
"""
