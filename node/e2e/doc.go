// Package e2e drives the real binary over real sockets: packaging, signals,
// kill -9, full and failing disks, power loss, input that is meant to break a
// parser. What can be shown in one process is shown beside the code; what is
// here needs a process that can die.
//
// TestMain builds the binary once. Every node listens on loopback only and
// dies with the test. Each wait is a poll with a deadline, and a test that
// fails prints what its nodes logged.
//
// Some tests need root, strace or loop devices, and skip with the reason where
// they are missing. The environment changes what runs:
//
//	WORKMANAGER_E2E_RACE=1        the binary is built with the race detector
//	WORKMANAGER_E2E_ROUNDS=15     rounds of the kill -9 loop
//	WORKMANAGER_E2E_LINES=200000  lines of a large batch
//	WORKMANAGER_E2E_BATCHES=4     batches of each shape in the batch loop
//	WORKMANAGER_E2E_SEED=1        of the random choices; printed by each test that makes some
//	WORKMANAGER_E2E_SKIP=fail     a skip is a failure
//	WORKMANAGER_E2E_PAIR=1        the tests of a pair that take long, too
//	WORKMANAGER_E2E_FLEET=1       the tests of a fleet, which wait for workers to come and go
//	WORKMANAGER_E2E_DASH=1        what an open dashboard costs with a million jobs: a quarter of an hour
//	WORKMANAGER_E2E_DASH_JOBS, WORKMANAGER_E2E_DASH_SECONDS   so many, and how long the tab is watched
//	WORKMANAGER_E2E_PAIR_ROUNDS=3 rounds of the pair's kill loops
//	WORKMANAGER_E2E_TAKEOVERS=4   rounds of the take-over test
//	WORKMANAGER_E2E_LONG=1        refills at full length
//	WORKMANAGER_E2E_DEPLOY=1      setup.sh and teardown.sh are killed after every call, not some
//	WORKMANAGER_E2E_MUTED=1       nodes whose gossip is silent once they have met
package e2e
