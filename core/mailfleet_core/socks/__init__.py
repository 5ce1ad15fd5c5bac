"""SOCKS5 as egress proxies speak it: the address to send from, then where to, on one connection."""
