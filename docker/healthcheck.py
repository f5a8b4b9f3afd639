"""Exit 0 if the service of this container responds at the URL of the variable MMLAB_HEALTH_URL.

A container without the variable, such as that of a driver, has no service and is healthy.
"""

import os
import urllib.request

url = os.environ.get("MMLAB_HEALTH_URL")
if url:
    with urllib.request.urlopen(url, timeout=5) as response:
        raise SystemExit(response.status != 200)
