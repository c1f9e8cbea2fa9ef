"""/predict, /prepare, /models and health.

predict   a request that holds rows, from body to reply
dialect   in what one route for rows differs from another
prepare, models, shadow, health    the other handlers; replies are what they answer
"""
