"""For every test."""

import signal

# Started in the background by a shell, a process inherits SIGINT as ignored and so do its
# children: then nothing here would end on Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
