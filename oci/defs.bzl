"""`rust_service_image`: the one macro that knows how an image is made."""

load("@rules_oci//oci:defs.bzl", "oci_image", "oci_load")
load("@rules_pkg//pkg:mappings.bzl", "pkg_attributes", "pkg_files")
load("@rules_pkg//pkg:tar.bzl", "pkg_tar")
load("@rules_python//python:py_test.bzl", "py_test")

_SOURCE = "https://github.com/trivet/trivet"

def rust_service_image(name, binary, port, budget_mb, description):
    """A static program on nothing: CA bundle, users, program; one port, no shell.

    Makes `name` (the image), `name.digest`, `name_load` (loads `trivet/<name>:dev`), `name_image_test` and `name_sbom`.

    Args:
      name: the name of the service, of the image and of the program in it.
      binary: the program.
      port: the one port it listens on for the public.
      budget_mb: what all layers together may weigh, in 10^6 bytes.
      description: one sentence.
    """
    pkg_files(
        name = name + "_program",
        srcs = [binary],
        attributes = pkg_attributes(mode = "0555"),
        prefix = "/app",
        renames = {binary: name},
    )
    pkg_tar(
        name = name + "_layer",
        srcs = [name + "_program"],
        owner = "0.0",
    )

    # The same in every build; only a release (--config=release) writes its commit and version.
    native.genrule(
        name = name + "_labels",
        outs = [name + ".labels.txt"],
        cmd = " && ".join([
            "status() { sed -n \"s/^$$1 //p\" bazel-out/stable-status.txt 2>/dev/null || true; }",
            "revision=$$(status STABLE_REVISION)",
            "version=$$(status STABLE_VERSION)",
            "printf 'org.opencontainers.image.%s\\n' 'description={}' licenses=Apache-2.0 \"revision=$${{revision:-unstamped}}\" ".format(description) +
            "source={} title={} \"version=$${{version:-0.1.0}}\" > $@".format(_SOURCE, name),
        ]),
        stamp = select({
            "//oci:stamped": 1,
            "//conditions:default": 0,
        }),
    )
    oci_image(
        name = name,
        architecture = select({
            "@platforms//cpu:arm64": "arm64",
            "//conditions:default": "amd64",
        }),
        entrypoint = ["/app/" + name],
        env = {"SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt"},
        exposed_ports = ["{}/tcp".format(port)],
        labels = name + "_labels",
        os = "linux",
        # Lowest first: what changes least is shared by all images.
        tars = [
            "//oci:ca_certificates",
            "//oci:users",
            name + "_layer",
        ],
        user = "1001:1001",
        visibility = ["//visibility:public"],
        workdir = "/app",
    )
    oci_load(
        name = name + "_load",
        image = name,
        repo_tags = ["trivet/{}:dev".format(name)],
        visibility = ["//visibility:public"],
    )
    native.genrule(
        name = name + "_sbom",
        srcs = ["//:Cargo.lock"],
        outs = [name + ".cdx.json"],
        cmd = "$(execpath //tools/sbom) $(execpath //:Cargo.lock) {} > $@".format(name),
        tools = ["//tools/sbom"],
    )
    py_test(
        name = name + "_image_test",
        size = "small",
        srcs = ["//oci:image_test.py"],
        args = [
            "$(rootpath :{})".format(name),
            "$(rootpath :{}_sbom)".format(name),
            name,
            str(port),
            str(budget_mb),
        ],
        data = [
            name,
            name + "_sbom",
        ],
        main = "image_test.py",
    )
