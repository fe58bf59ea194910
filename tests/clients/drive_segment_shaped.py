"""segment-analytics-python or rudder-sdk-python, which are called alike: PACKAGE URL KEY COUNT [SOCKET]"""
import sys
from importlib import import_module

package, url, key, count, *socket = sys.argv[1:]
request = import_module(package + ".analytics.request")
client = import_module(package + ".analytics.client")
if socket:
    import requests_unixsocket

    request._session.mount("http+unix://", requests_unixsocket.UnixAdapter())
errors = []
client = client.Client(key, host=url, gzip=True, upload_size=10, on_error=lambda error, items: errors.append(error))
client.identify("u1", {"email": "jane@example.com"})
for n in range(int(count)):
    client.track("u1", "Product Viewed", {"n": n, "price": 79.0, "nan": float("nan"), "at": "x" * (40000 if n == 0 and package == "rudderstack" else 1000)})
client.page("u1", "shop", "home", {"url": "https://example.com/"})
client.screen("u1", "shop", "home")
client.group("u1", "g1", {"name": "group"})
client.alias("a1", "u1")
client.flush()
client.join()
if errors:
    sys.exit(f"{len(errors)} errors, the first: {errors[0]!r}")
