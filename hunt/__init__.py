"""
The hunt: input that nobody thought of, drawn at random, shrunk, and kept where it did harm.

``python -m hunt --minutes 1 --seed 1`` feeds damaged files, messages of any content and events in
any order to the code that takes them. Nothing may come of a case but its result, an `InputError`
or a status; none may take over a second or 512 MB.
"""
