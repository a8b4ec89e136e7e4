"""`python -m vxdata_cli` is `vxdata`."""

from vxdata_cli.main import main

if __name__ == "__main__":
    main()
