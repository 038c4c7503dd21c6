"""The native hooks (C) and their ctypes mirror."""
