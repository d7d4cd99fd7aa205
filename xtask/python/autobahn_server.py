# The fuzzing server of the Autobahn test suite on an ephemeral port of the loopback interface.
#
# CPython 2.7; `cargo xtask autobahn` runs it as `autobahn_server.py PACKAGES SPEC`, where PACKAGES is what
# `pip install --target` made and SPEC is wstest's specification. It is `wstest -m fuzzingserver` but for the
# address: the suite listens on every interface, on a port that has to be known beforehand.
#
# Prints `listening on PORT` when it does.

import json
import site
import sys

# Not only a place to import from: zope's namespace package needs its .pth file read.
site.addsitedir(sys.argv[1])
sys.path.insert(0, sys.argv[1])

# Installs the reactor, so it comes before anything of Twisted's.
from autobahntestsuite import wstest
from twisted.internet import reactor

listen_tcp = reactor.listenTCP


def listen_on_loopback(_port, factory, backlog=50, _interface=''):
    listener = listen_tcp(0, factory, backlog, '127.0.0.1')
    # It compares the port in a request's Host header with this one.
    factory.port = factory.externalPort = listener.getHost().port
    print 'listening on %d' % factory.port
    return listener


reactor.listenTCP = listen_on_loopback

# No web port: no second server with pages for browsers.
wstest.start({'mode': 'fuzzingserver', 'webport': 0}, json.load(open(sys.argv[2])))
