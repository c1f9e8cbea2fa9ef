"""One HTTP request -> one reply.

routes       THE table of routes; route is a row of it
app          create_app: where the parts of the service meet, and every request begins
request, reply, query    values: what came, and what goes
status       which status a kind of failure has
access       API keys and CORS
procedure    the steps of a request that infers, and their order
connection   HTTP/1.1 under uvicorn, with limits
direct       requests that infer, answered where they arrive
rest/ v2/ platforms/ pages/ openapi/    the handlers, and the document
"""
