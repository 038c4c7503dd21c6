"""What ``timevm img --help`` prints."""

HELP = """\
usage: timevm img COMMAND [options] FILE …

  create    [-q] [-f FORMAT] [-b BACKING [-F FORMAT]] [-u] [-o OPTIONS] FILE [SIZE]
  info      [-f FORMAT] [--output=human|json] [--backing-chain] [-U] FILE
  check     [-q] [-f FORMAT] [--output=human|json] [-r leaks|all] [-U] FILE
  snapshot  [-q] [-U] [-l | -c TAG | -a SNAPSHOT | -d SNAPSHOT] FILE
  map       [-f FORMAT] [--start-offset=N] [--max-length=N] [--output=human|json] [-U] FILE
  convert   [-c] [-p] [-q] [-U] [-n] [-f FORMAT] [-O FORMAT] [-o OPTIONS] [-l SNAPSHOT] [-S SIZE] FILE OUTPUT
  resize    [-q] [-f FORMAT] [--shrink] FILE [+|-]SIZE

  -f FORMAT   raw or qcow2; without it FILE is looked at.  -F and -O: the same of BACKING and OUTPUT
  -o OPTIONS  of a new qcow2, separated by commas: size=, compat=v2|v3, cluster_size=, compression_type=zlib|zstd,
              lazy_refcounts=on|off, refcount_bits=, preallocation=off|metadata, backing_file=, backing_fmt=
  -q          print nothing but errors
  -U          look at an image that another program has open for writing
  create      -b: what was not written is read from BACKING; -u: do not look at BACKING
  check       -r: repair leaks (clusters that nothing uses), or all.  Exit status: 0 sound, 1 failed, 2 damaged,
              3 leaks, 63 raw, which cannot be checked
  snapshot    -l: list them (the default); -c: make one; -a: put the disk back to one; -d: delete one.  SNAPSHOT is an
              id or a tag
  map         what of the disk is where in which file
  convert     -c: compress; -p: show a progress bar; -n: write into an OUTPUT that is there; -l: read this snapshot;
              -S: leave out zeroes of at least SIZE bytes (0: write them, too)
  resize      to SIZE, or by so much more or less; --shrink: allow that what is behind the new end is deleted
"""

#: commands of qemu-img that are none of ours
ELSEWHERE = frozenset(("amend", "bench", "bitmap", "commit", "compare", "dd", "measure", "rebase"))
