"""HTTP/2 connections on Trio: sockets, TLS and memory below, streams that a call can use above.

    listener, dialing     where byte streams come from
    byte_stream, memory   what they are
    connection            one reader, one writer; keepalive, lifetime and alarms are its clocks

Knows Trio and wire/http2, and nothing of gRPC.
"""
