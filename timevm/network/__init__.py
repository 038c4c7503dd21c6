"""Networks at the other end of a guest's card: sans-IO cores, and the asyncio shells that have the host's sockets."""
