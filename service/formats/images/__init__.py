"""Images, PNG or JPEG -> the pixels that a model takes. Only here is Pillow.

bodies   a body that is an image, or a form of images
limits   what may stand in a file, counted before a decoder reads it
decode   a file -> pixels
ink      drawings and photographs -> pixels as MNIST was made
"""
