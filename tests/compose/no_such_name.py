"""A name server that knows no name and says so at once: `python3 no_such_name.py ADDRESS`, by engine.sh.

Docker passes on what its own name server does not know, such as the name of a service that is stopped.
"""

import socket
import struct
import sys

NO_SUCH_NAME = 0x8183


def main(address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, 53))
        while True:
            query, client = server.recvfrom(4096)
            end = 12
            while end < len(query) and query[end]:
                end += query[end] + 1
            question = query[12 : end + 5]
            server.sendto(query[:2] + struct.pack(">HHHHH", NO_SUCH_NAME, 1, 0, 0, 0) + question, client)


if __name__ == "__main__":
    main(sys.argv[1])
