"""`rust_crate`: one call that builds, tests and lints a crate of the Cargo workspace.

A crate is laid out as Cargo expects it, and this macro finds the parts:

    src/lib.rs      the library; its target is named like the folder, or `lib` where there is a program too
    src/main.rs     a program, named like the package
    src/bin/*.rs    more programs
    tests/*.rs      integration tests, one target each; folders below tests/ are modules that all of them may use

Crates from the registry come from Cargo.toml. Crates of this workspace are named as labels in `deps` and `test_deps`.
"""

load("@crates//:defs.bzl", "aliases", "all_crate_deps")
load("@rules_rust//rust:defs.bzl", "rust_binary", "rust_clippy", "rust_library", "rust_test", "rustfmt_test")

# The workspace's, in Cargo.toml: package files are not read while BUILD files are.
_EDITION = "2024"
_VERSION = "0.1.0"

# SQL is checked against the committed descriptions, never against a database.
_RUSTC_ENV = {
    "DATABASE_URL": "",
    "SQLX_OFFLINE": "true",
}

# Libraries are optimized (they are the ones in the images); the tests' own code is not worth the time.
_TEST_FLAGS = [
    "-Cdebug-assertions=on",
    "-Copt-level=0",
]

_PROGRAM_FLAGS = ["-Cstrip=symbols"]

# The crate's own code calls `testkit::coverage` at each branch and comparison, so that a fuzzer knows which ones an input took; the
# crates that it uses do not. Optimized a little, because a parser that runs ten times as often finds ten times as much.
_FUZZ_FLAGS = [
    "-Cdebug-assertions=on",
    "-Copt-level=1",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=3",
    "-Cllvm-args=-sanitizer-coverage-trace-pc-guard",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
]

# For images that hold nothing else. The linker is named because Bazel prefers lld where it is installed, and lld takes the
# toolchain's -lstdc++ for a reason to make the program dynamic: it would crash before main.
_STATIC_FLAGS = _PROGRAM_FLAGS + [
    # glibc says that name resolution may need shared modules; the images' nsswitch.conf asks for none but the built-in ones.
    "-Alinker_messages",
    "-Clink-arg=-fuse-ld=bfd",
    # A program that can be loaded anywhere has a relocation for each pointer in its data: a bit each instead of 24 bytes, which is a
    # megabyte of the larger ones.
    "-Clink-arg=-Wl,-z,pack-relative-relocs",
    "-Ctarget-feature=+crt-static",
]

def rust_crate(name, crate_name = None, static = False, deps = [], test_deps = [], unit_test_deps = [], test_data = [], test_size = "medium", fuzzed = False, small = False, visibility = ["//visibility:public"]):
    """Builds, tests and lints the crate in this folder.

    Args:
      name: the package's name in Cargo.toml.
      crate_name: the library's name in Rust, if it is not `name` with underscores.
      static: whether its programs need no library of the system, so that they can run in an empty image.
      deps: crates of this workspace that the crate uses.
      test_deps: crates of this workspace that only its tests use.
      unit_test_deps: crates of this workspace that only the library's own tests use.
      test_data: files that its integration tests read while they run.
      test_size: the size of its integration tests.
      fuzzed: whether its library has tests in modules named `fuzzing`, to be run for long in a build of their own.
      small: whether its library is compiled in one piece: a sixth smaller, since no piece has its own copy of what others have too, and slower
        to build.
      visibility: who may use it.
    """
    crate_name = crate_name or name.replace("-", "_")
    has_library = bool(native.glob(["src/lib.rs"], allow_empty = True))
    has_program = bool(native.glob(["src/main.rs"], allow_empty = True))
    library = "lib" if has_program else name
    common = dict(
        aliases = aliases(),
        compile_data = native.glob(
            [
                ".sqlx/*.json",
                "*.json",
                "Cargo.toml",
                "data/**",
                "migrations/*.sql",
            ],
            allow_empty = True,
        ),
        edition = _EDITION,
        rustc_env = _RUSTC_ENV | {"CARGO_PKG_VERSION": _VERSION},
        version = _VERSION,
    )
    # For tests of the repository that read code: which test proves what, which measures there are.
    native.filegroup(
        name = "sources",
        srcs = native.glob(["src/**/*.rs", "tests/**/*.rs"], allow_empty = True),
        visibility = ["//tools/policy:__pkg__"],
    )
    linted = []
    if has_library:
        rust_library(
            name = library,
            srcs = native.glob(["src/**/*.rs"], exclude = ["src/bin/**", "src/main.rs"]),
            crate_name = crate_name,
            deps = all_crate_deps(normal = True) + deps,
            proc_macro_deps = all_crate_deps(proc_macro = True),
            rustc_flags = ["-Ccodegen-units=1"] if small else [],
            visibility = visibility,
            **common
        )
        rust_test(
            name = name + "_unit_test",
            size = "small",
            aliases = aliases(normal_dev = True, proc_macro_dev = True),
            crate = ":" + library,
            deps = all_crate_deps(normal_dev = True) + unit_test_deps,
            proc_macro_deps = all_crate_deps(proc_macro_dev = True),
            rustc_flags = _TEST_FLAGS,
        )
        linted += [":" + library, ":" + name + "_unit_test"]
    if fuzzed:
        rust_test(
            name = name + "_fuzz_test",
            # As long as TRIVET_FUZZ_SECONDS says.
            timeout = "eternal",
            aliases = aliases(normal_dev = True, proc_macro_dev = True),
            args = ["fuzzing"],
            crate = ":" + library,
            deps = all_crate_deps(normal_dev = True) + unit_test_deps,
            # All at once, however few processors there are.
            env = {"RUST_TEST_THREADS": "16"},
            proc_macro_deps = all_crate_deps(proc_macro_dev = True),
            rustc_flags = _FUZZ_FLAGS,
            # `bazel test //...` gives the same tests some rounds, in the unit test.
            tags = ["manual"],
        )
    own = [":" + library] if has_library else []
    programs = {path[len("src/bin/"):-len(".rs")]: path for path in native.glob(["src/bin/*.rs"], allow_empty = True)}
    if has_program:
        programs[name] = "src/main.rs"
    for program, main in programs.items():
        rust_binary(
            name = program,
            srcs = [main] if has_library else native.glob(["src/**/*.rs"], exclude = ["src/bin/**"]),
            crate_name = crate_name + "_main" if program == name else program.replace("-", "_"),
            crate_root = main,
            deps = all_crate_deps(normal = True) + deps + own,
            proc_macro_deps = all_crate_deps(proc_macro = True),
            rustc_flags = _STATIC_FLAGS if static else _PROGRAM_FLAGS,
            visibility = visibility,
            **common
        )
        linted.append(":" + program)
    for test in native.glob(["tests/*.rs"], allow_empty = True):
        target = "{}_{}_test".format(name, test[len("tests/"):-len(".rs")])
        rust_test(
            name = target,
            size = test_size,
            srcs = [test] + native.glob(["tests/*/**/*.rs"], allow_empty = True),
            crate_root = test,
            data = test_data + native.glob([".sqlx/*.json"], allow_empty = True),
            deps = all_crate_deps(normal = True, normal_dev = True) + deps + test_deps + own,
            proc_macro_deps = all_crate_deps(proc_macro = True, proc_macro_dev = True),
            rustc_flags = _TEST_FLAGS,
            **(common | {"aliases": aliases(normal_dev = True, proc_macro_dev = True)})
        )
        linted.append(":" + target)
    rustfmt_test(
        name = name + "_rustfmt_test",
        size = "small",
        targets = linted,
    )
    rust_clippy(
        name = name + "_clippy",
        testonly = True,
        deps = linted,
    )
