package vm

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// sriovCards proves, in the machine with SR-IOV cards, that they are what code is to be tested against.
const sriovCards = `set -eu
for card in 0000:01:00.0 0000:02:00.0; do
	cd /sys/bus/pci/devices/$card
	echo "$card: of $(cat sriov_totalvfs)"
	echo 7 >sriov_numvfs
	for i in 0 1 2 3 4 5 6; do
		cd /sys/bus/pci/devices/$card/virtfn$i
		echo "$card/$i: $(basename "$(readlink driver)") with a link: $(ls net | wc -l)"
	done
done
address=$(basename "$(readlink -f .)")
echo vfio-pci >driver_override
echo $address >driver/unbind
echo $address >/sys/bus/pci/drivers_probe
echo "$card/6: $(basename "$(readlink driver)") with a link: $(ls net 2>/dev/null | wc -l)"
[ ! -c /dev/vfio/$(basename "$(readlink iommu_group)") ] || echo "$card/6: a device of its IOMMU group"
`

// TestVMSRIOV: the machine with SR-IOV cards has two, each makes its seven virtual functions, all with links, and a virtual
// function can be given to a Pod's user space. It is not parallel: the others have deadlines.
func TestVMSRIOV(t *testing.T) {
	if os.Getenv(insideVariable) != "" {
		t.Skip("this is the outer half")
	}
	script, err := filepath.Abs("vm.sh")
	must(t, err)
	cmd := exec.Command(script, "run", "bash", "-c", sriovCards)
	cmd.Env = append(os.Environ(), "VM_SRIOV=1")
	out, err := cmd.CombinedOutput()
	if _, reason, ok := strings.Cut(string(out), "vm: skipped: "); ok {
		t.Skip(strings.TrimSpace(reason))
	}
	must(t, err)
	var want []string
	for _, card := range []string{"0000:01:00.0", "0000:02:00.0"} {
		want = append(want, card+": of 7")
		for _, vf := range []string{"0", "1", "2", "3", "4", "5", "6"} {
			want = append(want, card+"/"+vf+": igbvf with a link: 1")
		}
	}
	want = append(want, "0000:02:00.0/6: vfio-pci with a link: 0", "0000:02:00.0/6: a device of its IOMMU group")
	if got := string(out); !strings.Contains(got, strings.Join(want, "\n")) {
		t.Fatalf("want\n%s\ngot\n%s", strings.Join(want, "\n"), got)
	}
}
