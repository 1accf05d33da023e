package docs

import (
	"encoding/json"
	"os"
	"regexp"
	"testing"

	"danm.io/danm/spec/annotation"
)

// TestGuideConfs: each CNI configuration that the guide shows is one, and the agent reads the part that is for it.
func TestGuideConfs(t *testing.T) {
	data, err := os.ReadFile(root + "/docs/guide.md")
	if err != nil {
		t.Fatal(err)
	}
	interfaces, ipam := 0, 0
	for _, m := range regexp.MustCompile("(?s)```json\n(.*?)```").FindAllSubmatch(data, -1) {
		var conf struct {
			CNIVersion, Name, Type string
			Interfaces, IPAM       json.RawMessage
		}
		if err := json.Unmarshal(m[1], &conf); err != nil || conf.CNIVersion == "" || conf.Name == "" || conf.Type == "" {
			t.Errorf("no CNI configuration: %v\n%s", err, m[1])
		}
		if conf.Interfaces != nil {
			interfaces++
			if got, problems := annotation.ParseInterfaces("interfaces", conf.Interfaces); problems.HasErrors() || len(got) == 0 {
				t.Errorf("%v\n%s", problems, m[1])
			}
		}
		if conf.IPAM != nil {
			ipam++
			if _, problems := annotation.ParseIPAM("ipam", conf.IPAM); problems.HasErrors() {
				t.Errorf("%v\n%s", problems, m[1])
			}
		}
	}
	if interfaces == 0 || ipam == 0 {
		t.Errorf("control: %d with interfaces, %d with ipam", interfaces, ipam)
	}
}
