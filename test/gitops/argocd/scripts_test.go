// SPDX-License-Identifier: Apache-2.0

package argocd_test

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/argoproj/argo-cd/v3/util/lua"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"rpi-connect.dev/operator/test/cluster"
)

// The tests that lie beside the scripts, in the form that Argo CD has for its own.

var _ = Describe("The scripts", func() {
	vm := func() lua.VM { return lua.VM{ResourceOverrides: customizations()} }
	folders, err := filepath.Glob(filepath.Join(cluster.Root(), "config", "argocd", "resource_customizations", "rpi-connect.dev", "*"))
	if err != nil || len(folders) == 0 {
		panic("there are no scripts")
	}
	for _, dir := range folders {
		kind := filepath.Base(dir)

		It("tell the health of every "+kind, func() {
			var file struct {
				Tests []struct {
					HealthStatus struct{ Status, Message string }
					InputPath    string
				}
			}
			load(filepath.Join(dir, "health_test.yaml"), &file)
			Expect(file.Tests).NotTo(BeEmpty())
			for _, test := range file.Tests {
				obj := object(filepath.Join(dir, test.InputPath))
				script, _, err := vm().GetHealthScript(obj)
				Expect(err).NotTo(HaveOccurred())
				health, err := vm().ExecuteHealthLua(obj, script)
				Expect(err).NotTo(HaveOccurred())
				Expect(health).To(And(HaveField("Status", BeEquivalentTo(test.HealthStatus.Status)), HaveField("Message", test.HealthStatus.Message)), test.InputPath)
			}
		})

		It("offer and run the actions of every "+kind, func() {
			var tests struct {
				DiscoveryTests []struct {
					InputPath string
					Result    []struct {
						Name     string
						Disabled bool
					}
				}
				ActionTests []struct{ Action, InputPath, ExpectedOutputPath string }
			}
			load(filepath.Join(dir, "actions", "action_test.yaml"), &tests)
			Expect(tests.DiscoveryTests).NotTo(BeEmpty())
			Expect(tests.ActionTests).NotTo(BeEmpty())
			for _, test := range tests.DiscoveryTests {
				want := map[string]bool{}
				for _, action := range test.Result {
					want[action.Name] = action.Disabled
				}
				Expect(offered(object(filepath.Join(dir, "actions", test.InputPath)))).To(Equal(want), test.InputPath)
			}
			for _, test := range tests.ActionTests {
				got := act(object(filepath.Join(dir, "actions", test.InputPath)), test.Action)
				forgetTimes(got)
				want := object(filepath.Join(dir, "actions", test.ExpectedOutputPath))
				Expect(got.MarshalJSON()).To(MatchJSON(text(want)), test.Action+" "+test.InputPath)
			}
		})
	}
})

// offered are the actions that Argo CD offers for an object, and whether each is disabled.
func offered(obj *unstructured.Unstructured) map[string]bool {
	GinkgoHelper()
	vm := lua.VM{ResourceOverrides: customizations()}
	scripts, err := vm.GetResourceActionDiscovery(obj)
	Expect(err).NotTo(HaveOccurred())
	actions, err := vm.ExecuteResourceActionDiscovery(obj, scripts)
	Expect(err).NotTo(HaveOccurred())
	disabled := map[string]bool{}
	for _, action := range actions {
		disabled[action.Name] = action.Disabled
	}
	return disabled
}

// act runs an action, and returns what becomes of the object.
func act(obj *unstructured.Unstructured, name string) *unstructured.Unstructured {
	GinkgoHelper()
	vm := lua.VM{ResourceOverrides: customizations()}
	action, err := vm.GetResourceAction(obj, name)
	Expect(err).NotTo(HaveOccurred())
	changed, err := vm.ExecuteResourceAction(obj, action.ActionLua, nil)
	Expect(err).NotTo(HaveOccurred())
	Expect(changed).To(ConsistOf(HaveField("K8SOperation", lua.PatchOperation)))
	return changed[0].UnstructuredObj
}

// forgetTimes replaces the time of a request, which has to be one, by "now".
func forgetTimes(obj *unstructured.Unstructured) {
	GinkgoHelper()
	annotations := obj.GetAnnotations()
	for key, value := range annotations {
		if strings.HasSuffix(key, "-requested-at") {
			_, err := time.Parse(time.RFC3339, value)
			Expect(err).NotTo(HaveOccurred())
			annotations[key] = "now"
		}
	}
	if annotations != nil {
		obj.SetAnnotations(annotations)
	}
}

func text(obj *unstructured.Unstructured) []byte {
	GinkgoHelper()
	content, err := obj.MarshalJSON()
	Expect(err).NotTo(HaveOccurred())
	return content
}

func object(path string) *unstructured.Unstructured {
	GinkgoHelper()
	obj := &unstructured.Unstructured{}
	load(path, &obj.Object)
	return obj
}

func load(path string, into any) {
	GinkgoHelper()
	content, err := os.ReadFile(path)
	Expect(err).NotTo(HaveOccurred())
	Expect(yaml.Unmarshal(content, into)).To(Succeed(), path)
}
