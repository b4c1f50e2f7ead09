"""The rules of the compose files (H-21 to H-53), one case each, on the model that `docker compose config` makes of them."""

import json
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(os.environ.get("TEST_SRCDIR", ".")) / os.environ.get("TEST_WORKSPACE", ".")
SERVICES = {"auth-service", "billing-service", "chat-service"}
MIGRATIONS = {"auth-migrate", "billing-migrate"}
SIMULATORS = {"llm-simulator", "stripe-simulator"}
INFRA = {"postgres", "redis", "jaeger"}


def model():
    """The merged model of all files, with every profile; no daemon is asked."""
    with tempfile.TemporaryDirectory() as home:
        command = ["docker", "compose", "--file", str(ROOT / "compose.yaml"), "--profile", "*", "config", "--format", "json", "--no-path-resolution"]
        environment = {"PATH": os.environ["PATH"], "HOME": home}
        made = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert made.returncode == 0, made.stderr
        return json.loads(made.stdout)


class Policy(unittest.TestCase):
    """One case for each rule; its number is in its name."""

    looked_at = None

    @classmethod
    def setUpClass(cls):
        cls.model = model()
        cls.services = cls.model["services"]

    def each(self, names=None):
        """The services, in order; a failure names the one it is about."""
        for self.looked_at in sorted(names or self.services):
            yield self.looked_at, self.services[self.looked_at]
        self.looked_at = None

    def _formatMessage(self, msg, standardMsg):
        text = super()._formatMessage(msg, standardMsg)
        return f"{self.looked_at}: {text}" if self.looked_at else text

    def test_the_stack_is_what_we_think_it_is(self):
        self.assertEqual(set(self.services), SERVICES | MIGRATIONS | SIMULATORS | INFRA)

    def test_h21_the_project_has_a_name_and_the_files_no_version(self):
        self.assertEqual(self.model["name"], "trivet")
        for path in [ROOT / "compose.yaml", *ROOT.glob("compose/*.yaml")]:
            self.assertNotRegex(path.read_text(), re.compile(r"^version:", re.MULTILINE), path.name)

    def test_h22_every_root_is_read_only(self):
        for _, service in self.each():
            self.assertTrue(service.get("read_only"))

    def test_h23_every_capability_is_dropped_and_none_added(self):
        for _, service in self.each():
            self.assertEqual(service.get("cap_drop"), ["ALL"])
            self.assertFalse(service.get("cap_add"))

    def test_h24_no_process_gains_privileges(self):
        for _, service in self.each():
            self.assertIn("no-new-privileges:true", service.get("security_opt", []))

    def test_h25_no_namespace_of_the_host_is_shared(self):
        for _, service in self.each():
            self.assertFalse(service.get("privileged"))
            for key in ("network_mode", "pid", "ipc", "uts", "userns_mode"):
                self.assertNotEqual(service.get(key), "host")

    def test_h26_h27_no_socket_and_no_folder_of_the_system_is_mounted_and_files_are_read_only(self):
        for _, service in self.each():
            for mount in service.get("volumes", []):
                self.assertNotIn("docker.sock", mount["source"])
                if mount["type"] == "bind":
                    self.assertRegex(mount["source"], r"^(\./)?compose/[\w.-]+$")
                    self.assertTrue(mount.get("read_only"), mount)

    def test_h28_no_profile_is_unconfined(self):
        for _, service in self.each():
            self.assertFalse([option for option in service.get("security_opt", []) if "unconfined" in option])

    def test_h29_cpu_memory_and_processes_are_limited(self):
        for _, service in self.each():
            limits = service["deploy"]["resources"]["limits"]
            self.assertTrue({"cpus", "memory", "pids"} <= set(limits), limits)

    def test_h29_the_services_have_the_documented_limits(self):
        megabyte = 1024 * 1024
        documented = {"auth-service": (1.0, 512, 0.5, 256), "billing-service": (1.0, 512, 0.5, 256), "chat-service": (1.5, 768, 0.5, 384)}
        for name, service in self.each(SERVICES):
            resources = service["deploy"]["resources"]
            limits, reserved = resources["limits"], resources["reservations"]
            found = tuple(float(value) for value in (limits["cpus"], int(limits["memory"]) / megabyte, reserved["cpus"], int(reserved["memory"]) / megabyte))
            self.assertEqual(found, documented[name])

    def test_h30_daemons_are_restarted_and_one_shots_are_not(self):
        for name, service in self.each():
            self.assertEqual(service.get("restart"), "no" if name in MIGRATIONS else "unless-stopped")

    def test_h31_published_ports_are_on_loopback(self):
        for _, service in self.each():
            for port in service.get("ports", []):
                self.assertEqual(port.get("host_ip"), "127.0.0.1")

    def test_h32_databases_and_private_listeners_are_not_published(self):
        self.assertFalse(self.services["postgres"].get("ports"))
        self.assertFalse(self.services["redis"].get("ports"))
        targets = {name: {port["target"] for port in service.get("ports", [])} for name, service in self.services.items()}
        self.assertEqual(targets["auth-service"] | targets["chat-service"] | targets["billing-service"], {3001, 3002, 3003})
        self.assertEqual(targets["jaeger"], {16686})

    def test_h33_the_data_network_leads_nowhere_and_the_default_one_is_not_used(self):
        self.assertTrue(self.model["networks"]["data"]["internal"])
        for _, service in self.each():
            self.assertTrue(set(service["networks"]) <= {"data", "saas-network", "provider", "payments"}, service["networks"])

    def test_h34_a_service_is_on_the_networks_it_needs(self):
        networks = {name: set(service["networks"]) for name, service in self.services.items()}
        for name in ("postgres", "redis", *MIGRATIONS):
            self.assertEqual(networks[name], {"data"}, name)
        for name in ("auth-service", "billing-service", "jaeger"):
            payments = {"payments"} if name == "billing-service" else set()
            self.assertEqual(networks[name], {"data", "saas-network"} | payments, name)
        # What only the gateway talks to can reach neither the others nor their private listeners.
        self.assertEqual(networks["chat-service"], {"data", "saas-network", "provider"})
        self.assertEqual(networks["llm-simulator"], {"provider"})
        self.assertEqual(networks["stripe-simulator"], {"payments"})

    def test_h35_health_checks_need_no_shell(self):
        for name, service in self.each((SERVICES | SIMULATORS | INFRA) - {"jaeger"}):
            test = service["healthcheck"]["test"]
            self.assertEqual(test[0], "CMD")
            if name in SERVICES | SIMULATORS:
                self.assertEqual(test[1:], [f"/app/{name}", "healthcheck"])

    def test_h36_health_checks_are_bounded(self):
        # Jaeger's official image has nothing to ask with, and nothing waits for it (H-38). start_interval needs Docker 25.
        for _, service in self.each((SERVICES | SIMULATORS | INFRA) - {"jaeger"}):
            self.assertTrue({"interval", "timeout", "retries", "start_period"} <= set(service["healthcheck"]))

    def test_h37_services_wait_for_health_and_for_their_migration(self):
        for name in ("auth", "billing"):
            waits = self.services[f"{name}-service"]["depends_on"]
            self.assertEqual(waits["postgres"]["condition"], "service_healthy")
            self.assertEqual(waits["redis"]["condition"], "service_healthy")
            self.assertEqual(waits[f"{name}-migrate"]["condition"], "service_completed_successfully")

    def test_h38_nothing_waits_for_jaeger(self):
        for _, service in self.each():
            self.assertNotIn("jaeger", service.get("depends_on", {}))

    def test_h39_the_grace_is_longer_than_the_drain(self):
        drain = int(re.search(r"TRIVET_SHUTDOWN_GRACE_MS` \| `(\d+)`", (ROOT / "docs/operations/CONFIGURATION.md").read_text())[1]) / 1000
        # Tasks, the private listener and the last spans (libs/chassis: host.rs, telemetry.rs).
        longest = drain + 10 + 1 + 2
        for _, service in self.each(SERVICES):
            self.assertGreater(float(service["stop_grace_period"].rstrip("s")), longest)

    def test_h43_our_images_are_never_pulled(self):
        for _, service in self.each(SERVICES | MIGRATIONS | SIMULATORS):
            self.assertEqual(service.get("pull_policy"), "never")
            self.assertRegex(service["image"], r"^trivet/[a-z-]+:dev$")

    def test_h42_third_party_images_have_a_tag_and_can_be_replaced(self):
        text = (ROOT / "compose/infra.yaml").read_text()
        for name in INFRA:
            self.assertRegex(text, rf"\$\{{{name.upper()}_IMAGE:-[\w/.-]+:[\w.-]+\}}")

    def test_h44_no_secret_is_in_the_environment(self):
        for _, service in self.each():
            for key, value in (service.get("environment") or {}).items():
                if re.search(r"PASSWORD|SECRET|KEY", key):
                    self.assertTrue(key.endswith("_FILE"), f"{key} is given as a value")

    def test_h45_secret_files_are_ignored_by_git(self):
        ignored = (ROOT / ".gitignore").read_text().split()
        self.assertIn("/secrets/", ignored)
        self.assertIn("/.env", ignored)

    def test_h46_h48_every_container_has_a_user_of_its_own(self):
        users = {name: service.get("user") for name, service in self.services.items()}
        for name in SERVICES | MIGRATIONS | SIMULATORS:
            self.assertEqual(users[name], "1001:1001")
        self.assertEqual((users["postgres"], users["redis"], users["jaeger"]), ("70:70", "999:1000", "10001:10001"))

    def test_h48_redis_keeps_a_log_is_bounded_and_loses_nothing_silently(self):
        command = " ".join(self.services["redis"]["command"])
        for part in ("--appendonly yes", "--maxmemory ", "--maxmemory-policy noeviction", "/run/secrets/redis_conf"):
            self.assertIn(part, command)

    def test_h49_services_connect_as_the_role_that_owns_nothing(self):
        for name in ("auth", "billing"):
            self.assertIn(f"{name}_app@", self.services[f"{name}-service"]["environment"]["TRIVET_DATABASE_URL"])
            self.assertIn(f"{name}_migrator@", self.services[f"{name}-migrate"]["environment"]["TRIVET_DATABASE_URL"])

    def test_h51_the_simulators_are_a_profile(self):
        for name, service in self.each(SIMULATORS):
            self.assertEqual(service["profiles"], ["simulators", name])

    def test_h52_logs_are_bounded(self):
        for _, service in self.each():
            self.assertTrue({"max-size", "max-file"} <= set(service["logging"]["options"]))

    def test_every_variable_of_the_files_is_explained_in_the_example_with_the_same_default(self):
        texts = [path.read_text() for path in sorted((ROOT / "compose").glob("*.yaml"))]
        used = {name: default for text in texts for name, default in re.findall(r"\$\{(\w+):-([^}]*)\}", text)}
        example = (ROOT / ".env.docker.example").read_text()
        explained = dict(re.findall(r"^(?:# )?([A-Z][A-Z_]+)=(.*)$", example, re.MULTILINE))
        self.assertEqual(set(used) - set(explained), set())
        self.assertEqual(set(explained) - set(used), {"COMPOSE_PROFILES"})
        for name, default in used.items():
            if name not in ("OPENAI_BASE_URL", "STRIPE_API_BASE"):  # the example names the real ones
                self.assertEqual(explained[name], default, name)

    def test_values_of_statements_are_never_logged(self):
        command = " ".join(self.services["postgres"]["command"])
        for part in ("log_statement=none", "log_parameter_max_length=0", "log_parameter_max_length_on_error=0", "log_min_error_statement=panic"):
            self.assertIn(part, command)

    def test_the_volumes_have_the_documented_names(self):
        self.assertEqual(set(self.model["volumes"]), {"postgres_data", "redis_data"})


if __name__ == "__main__":
    unittest.main()
