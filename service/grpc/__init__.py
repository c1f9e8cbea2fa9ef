"""gRPC: one call -> one answer, over HTTP/2.

protocol/    the .proto files, and what is compiled of them
messages     the messages of the protocol
connection   HTTP/2, with limits, over h2; budget is what a client may do beside its calls
shortcuts    usual frames, read and written without h2's objects of them
blocks       header blocks that hpack need not write
opened       what a client is told that it may do; sending is what goes to it
calls        the calls of a connection, from their headers to what is answered
stream       one call: what came of it, and its answer
heads        what the headers of a call say
framing      messages as gRPC sends them
methods      every method but ModelInfer
infer        ModelInfer, from message to answer; tensors are its typed contents
template     messages that differ from one before only in their numbers
status       which code a kind of failure has

It is imported at the first HTTP/2 connection, not before: who needs none pays nothing.
"""
