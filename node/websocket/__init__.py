"""WebSocket: the same streams of bytes as TCP, in messages, for peers behind proxies and in browsers."""
