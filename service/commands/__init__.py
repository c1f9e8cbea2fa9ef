"""What `python -m service` does beside serving. No HTTP server.

health     whether the service of this machine is ready
inspect    what a model is
doctor     what would run here, and what is wrong
score/     answers for each row of a file
terminal   the three standard streams
"""
