"""Port, workers, signals.

server    takes the port, runs one worker or several, stops them without losing a request
worker    the app in uvicorn's server
speaking  HTTP/1.1, and gRPC on the same port
signals   the signals that mean something here
folder    where several workers share their counters
"""
