"""What every way in shares, whatever protocol a caller speaks.

services     the parts of the service, and the host that they run in
limits       how many connections there may be, and how long each may take
memory       the bytes of requests and replies that a worker holds
keys         API keys
failing      what a caller is told of whatever was raised
version      the header that says which version answered
row_bodies   which bodies are read in the event loop, and which in a thread
compression  gzip and deflate
writes       what a connection sends, held and sent together; lingering is its end
"""
