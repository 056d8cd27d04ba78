"""What a browser gets: a page that lists the models and lets a person try them, and the description of all requests.

The files are served as they are, from a fixed list. Nothing on them is secret, so they need no key; the requests that
they send do.
"""
