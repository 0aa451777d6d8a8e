import json
import logging


class JsonLines:
    """Puts what a process writes together again into lines of JSON."""

    def __init__(self):
        self._rest = b""

    def feed(self, data):
        """The values of the lines that are complete now; a line that is no JSON is left out and logged.

        :param data: bytes, or a QByteArray as a process hands it over.
        """
        self._rest += data if isinstance(data, bytes) else bytes(data.data())
        *lines, self._rest = self._rest.split(b"\n")
        values = []
        for line in lines:
            try:
                values.append(json.loads(line))
            except ValueError:
                logging.debug("ProSMA: a process wrote something that is no event: %r", line[:200])
        return values
