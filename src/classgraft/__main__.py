from classgraft.cli import main

main()
