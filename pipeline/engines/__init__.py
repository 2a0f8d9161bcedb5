"""Where text comes from.

`base.py` is the protocol, `scheduler.py` keeps an engine busy, the rest are engines.
"""
