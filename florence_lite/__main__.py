"""`python -m florence_lite …`, the command for launchers such as `accelerate launch -m florence_lite train …`."""

from florence_lite.cli import main

if __name__ == "__main__":
    main()
