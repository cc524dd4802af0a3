"""The HTTP API: the functions of `node.api.functions` as routes, for programs, Prometheus and the dashboard.

guard.py        who may ask at all: Host, Origin, token, rates, places (rules, no I/O)
token.py        the token's file
routes.py       the table: a line for each route, from which come the app and the document
app.py          the table as an ASGI app (Starlette)
stream.py       what goes on telling: server-sent events
openapi.py      the table as an OpenAPI document
connection.py   Hypercorn's HTTP/1.1 on one connection, bounded
serve.py        listens, takes connections, ends with the node
dashboard/      the files of the page at /
"""
