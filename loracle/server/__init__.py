"""`loracle serve`: a run, or a folder of runs, in a browser on this machine, live.

following.py   from events.jsonl to the state of a run, read as it grows
app.py         the pages and the stream, protected by token, Host check and content policy
serving.py     the socket, the printed address, shutdown
"""
