"""Character devices: where the bytes of serial ports and monitors go outside the process."""
