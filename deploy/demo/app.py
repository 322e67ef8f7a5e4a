"""The demo application behind the gateway: it answers with the request it received.

It is `doctor`'s echo application, see `verifier.doctor.echo`.

Run: `python -m uvicorn deploy.demo.app:app --host 127.0.0.1 --port 8081`
"""

from verifier.doctor.echo import app as app
