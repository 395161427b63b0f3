package ec2_test

import (
	"errors"
	"strings"
	"testing"

	"workmanager/ec2"
	"workmanager/ec2/ec2test"
)

func TestArchOf(t *testing.T) {
	for arch, names := range map[string]string{
		"arm64": "a1.large c6g.large c7g.large c7gd.metal c7gn.16xlarge c8g.48xlarge m6g.medium m8gb.large r8gn.large t4g.nano x2gd.medium x8g.large im4gn.large is4gen.large i4g.large i8ge.large g5g.xlarge hpc7g.4xlarge",
		"amd64": "c7a.large c7i.large c7i-flex.large m7i-flex.large g4dn.xlarge g4ad.xlarge g6.xlarge g6e.xlarge gr6.4xlarge g3s.xlarge t2.micro t3a.small u-6tb1.metal u7i-12tb.224xlarge x2iedn.large vt1.3xlarge p5en.48xlarge inf2.xlarge hpc7a.12xlarge dl2q.24xlarge z1d.large",
	} {
		for name := range strings.FieldsSeq(names) {
			if got := ec2.ArchOf(name); got != arch {
				t.Errorf("ArchOf(%s) = %s, want %s", name, got, arch)
			}
		}
	}
}

func TestCheckTypes(t *testing.T) {
	intel, both := map[string]string{"amd64": sumA}, map[string]string{"amd64": sumA, "arm64": sumB}
	for _, row := range []struct {
		types    string
		programs map[string]string
		says     string
	}{
		{"c7a.large c7i.large", intel, ""},
		{"c7a.large", both, ""},
		{"c7g.large", both, ""},
		{"c7g.large", intel, "workmanager-linux-arm64"},
		{"c7a.large c7g.large", both, "one architecture"},
		{"c7a.large", nil, "workmanager-linux-amd64"},
	} {
		err := ec2.CheckTypes(strings.Fields(row.types), row.programs)
		if (err == nil) != (row.says == "") || err != nil && !strings.Contains(err.Error(), row.says) {
			t.Errorf("CheckTypes(%s) = %v, want %q", row.types, err, row.says)
		}
	}
}

// TestAWS_no_program launches nothing that could not run a worker.
func TestAWS_no_program(t *testing.T) {
	fake := ec2test.New(ec2test.Options{})
	cfg := awsConfig()
	cfg.Programs = map[string]string{"arm64": sumB}
	a := awsAt(t, serve(t, fake), cfg)
	_, err := a.Launch(t.Context(), slotRequest(fleetConfig(), 0, 0))
	var no *ec2.Refusal
	if !errors.As(err, &no) || no.Kind != ec2.Capacity || no.Code != "NoBinary" || !strings.Contains(no.Text, "amd64") {
		t.Errorf("Launch() = %v", err)
	}
	if n := fake.Calls("RunInstances"); n != 0 {
		t.Errorf("%d calls for it", n)
	}
}
