# usage: nat.py PUBLIC PRIVATE PORT      what comes to the one address goes to the other
import socket, sys, threading

public, private, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
listener = socket.create_server((public, port))


def carry(a, b):
    try:
        while data := a.recv(65536):
            b.sendall(data)
        b.shutdown(socket.SHUT_WR)
    except OSError:
        pass


while True:
    here, _ = listener.accept()
    try:
        there = socket.create_connection((private, port))
    except OSError:
        here.close()
        continue
    for pair in ((here, there), (there, here)):
        threading.Thread(target=carry, args=pair, daemon=True).start()
