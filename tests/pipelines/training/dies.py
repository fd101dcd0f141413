"""An export that crashes."""

if __name__ == "__main__":
    raise SystemExit("the library has crashed")
