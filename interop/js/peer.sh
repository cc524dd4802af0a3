#!/bin/sh
# The JavaScript peer as one program: it stands in interop/.built and needs what `npm ci` has put into interop/js.
here="$(dirname "$0")/../js"
exec "$here/node_modules/.bin/node" "$here/main.js" "$@"
