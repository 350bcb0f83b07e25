"""`python -m pcam_ssl`, which is also what `torchrun -m pcam_ssl` starts."""

from pcam_ssl.cli import main

if __name__ == "__main__":
    main()
