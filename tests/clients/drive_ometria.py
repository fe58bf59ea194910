"""ometria: URL KEY, with only its base URL changed"""
import sys

from ometria import Client

url, key = sys.argv[1:]
client = Client(key=key, version="2")
client.base_url = url + "/v2/"
records = [{"@type": "order", "id": f"o-{n}", "total": 79.5, "customer": {"email": "jane@example.com"}} for n in range(100)]
answer = client.push.post(data=records)
assert answer.response.status_code == 202, answer.response.status_code
assert (answer.data["status"], answer.data["accepted"], answer.data["rejected"]) == ("OK", 100, 0), answer.data
try:
    client.push.post(data=records + records[:1])
except ValueError as error:
    assert error.status_code == 400, error
else:
    sys.exit("101 records were accepted")
