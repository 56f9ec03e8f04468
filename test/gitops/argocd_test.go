// SPDX-License-Identifier: Apache-2.0

package gitops_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	lua "github.com/yuin/gopher-lua"
	luajson "layeh.com/gopher-json"
	"sigs.k8s.io/yaml"
)

const (
	argocd         = "../../config/argocd"
	customizations = argocd + "/resource_customizations/rpi-connect.dev"
)

// override is what argocd-cm.yaml says about a kind.
type override struct {
	Health  string
	Actions struct {
		Discovery   string `json:"discovery.lua"`
		Definitions []struct {
			Name   string
			Action string `json:"action.lua"`
		}
	}
}

func (o override) action(name string) string {
	for _, definition := range o.Actions.Definitions {
		if definition.Name == name {
			return definition.Action
		}
	}
	return ""
}

func overrides(t *testing.T) map[string]override {
	t.Helper()
	var configMap struct{ Data map[string]string }
	load(t, filepath.Join(argocd, "argocd-cm.yaml"), &configMap)
	all := map[string]override{}
	for key, value := range configMap.Data {
		part, kind, found := strings.Cut(strings.TrimPrefix(key, "resource.customizations."), ".rpi-connect.dev_")
		of := all[kind]
		switch {
		case found && part == "health":
			of.Health = value
		case found && part == "actions":
			if err := yaml.Unmarshal([]byte(value), &of.Actions); err != nil {
				t.Fatal(err)
			}
		default:
			t.Fatalf("what is %s?", key)
		}
		all[kind] = of
	}
	return all
}

// run runs a script over an object, and returns what the script returns. As in Argo CD, the only libraries
// are the base and tables; os has to be required, and has nothing but what tells the time.
func run(t *testing.T, script string, obj map[string]any) map[string]any {
	t.Helper()
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for _, library := range []struct {
		name string
		open lua.LGFunction
	}{
		{lua.LoadLibName, lua.OpenPackage}, {lua.BaseLibName, lua.OpenBase}, {lua.TabLibName, lua.OpenTable}, {lua.OsLibName, lua.OpenOs},
	} {
		state.Push(state.NewFunction(library.open))
		state.Push(lua.LString(library.name))
		state.Call(1, 0)
	}
	library, _ := state.GetGlobal(lua.OsLibName).(*lua.LTable)
	state.SetGlobal(lua.OsLibName, lua.LNil)
	loaded, _ := state.GetField(state.GetGlobal(lua.LoadLibName), "loaded").(*lua.LTable)
	loaded.RawSetString(lua.OsLibName, lua.LNil)
	state.PreloadModule(lua.OsLibName, func(state *lua.LState) int {
		safe := state.NewTable()
		for _, name := range []string{"date", "time"} {
			safe.RawSetString(name, library.RawGetString(name))
		}
		state.Push(safe)
		return 1
	})

	text, err := json.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	value, err := luajson.Decode(state, text)
	if err != nil {
		t.Fatal(err)
	}
	state.SetGlobal("obj", value)
	if err := state.DoString(script); err != nil {
		t.Fatal(err)
	}
	if text, err = luajson.Encode(state.Get(-1)); err != nil {
		t.Fatal(err)
	}
	var result map[string]any
	if err := json.Unmarshal(text, &result); err != nil {
		t.Fatalf("it returns %s", text)
	}
	return result
}

// kinds are those that the CRDs define.
func kinds(t *testing.T) (names []string) {
	t.Helper()
	crds, err := filepath.Glob("../../config/crd/bases/*.yaml")
	if err != nil || len(crds) == 0 {
		t.Fatalf("no CRDs: %v", err)
	}
	for _, path := range crds {
		var crd struct {
			Spec struct{ Names struct{ Kind string } }
		}
		load(t, path, &crd)
		names = append(names, crd.Spec.Names.Kind)
	}
	return names
}

func TestHealth(t *testing.T) {
	for _, kind := range kinds(t) {
		dir := filepath.Join(customizations, kind)
		var file struct {
			Tests []struct {
				HealthStatus map[string]any
				InputPath    string
			}
		}
		load(t, filepath.Join(dir, "health_test.yaml"), &file)
		if len(file.Tests) == 0 {
			t.Errorf("%s has no tests", kind)
		}
		for _, test := range file.Tests {
			t.Run(kind+"/"+test.InputPath, func(t *testing.T) {
				obj := object(t, filepath.Join(dir, test.InputPath))
				script := overrides(t)[kind].Health
				if script != text(t, filepath.Join(dir, "health.lua")) {
					t.Error("argocd-cm.yaml has another script than health.lua")
				}
				if health := run(t, script, obj); !reflect.DeepEqual(health, test.HealthStatus) {
					t.Errorf("is %v, not %v", health, test.HealthStatus)
				}
			})
		}
	}
}

type actionTests struct {
	DiscoveryTests []struct {
		InputPath string
		Result    []struct {
			Name     string
			Disabled bool
		}
	}
	ActionTests []struct{ Action, InputPath, ExpectedOutputPath string }
}

func TestActions(t *testing.T) {
	for _, kind := range kinds(t) {
		dir := filepath.Join(customizations, kind, "actions")
		var tests actionTests
		load(t, filepath.Join(dir, "action_test.yaml"), &tests)
		if len(tests.DiscoveryTests) == 0 || len(tests.ActionTests) == 0 {
			t.Errorf("%s has no tests", kind)
		}
		for _, test := range tests.DiscoveryTests {
			t.Run(kind+"/"+test.InputPath, func(t *testing.T) {
				obj := object(t, filepath.Join(dir, test.InputPath))
				script := overrides(t)[kind].Actions.Discovery
				if script != text(t, filepath.Join(dir, "discovery.lua")) {
					t.Error("argocd-cm.yaml has another script than discovery.lua")
				}
				want := map[string]any{}
				for _, action := range test.Result {
					want[action.Name] = map[string]any{"disabled": action.Disabled}
				}
				if got := run(t, script, obj); !reflect.DeepEqual(got, want) {
					t.Errorf("offers %v, not %v", got, want)
				}
			})
		}
		for _, test := range tests.ActionTests {
			t.Run(kind+"/"+test.Action+"/"+test.InputPath, func(t *testing.T) {
				obj := object(t, filepath.Join(dir, test.InputPath))
				script := overrides(t)[kind].action(test.Action)
				if script != text(t, filepath.Join(dir, test.Action, "action.lua")) {
					t.Error("argocd-cm.yaml has another script than action.lua")
				}
				got := run(t, script, obj)
				forgetTimes(t, got)
				if want := object(t, filepath.Join(dir, test.ExpectedOutputPath)); !reflect.DeepEqual(got, want) {
					t.Errorf("is\n%v\nnot\n%v", got, want)
				}
			})
		}
	}
}

// forgetTimes replaces the time of a request, which has to be one, by "now".
func forgetTimes(t *testing.T, obj map[string]any) {
	t.Helper()
	metadata, _ := obj["metadata"].(map[string]any)
	annotations, _ := metadata["annotations"].(map[string]any)
	for key, value := range annotations {
		if strings.HasSuffix(key, "-requested-at") {
			at, _ := value.(string)
			if _, err := time.Parse(time.RFC3339, at); err != nil {
				t.Error(err)
			}
			annotations[key] = "now"
		}
	}
}

func object(t *testing.T, path string) (obj map[string]any) {
	t.Helper()
	load(t, path, &obj)
	return obj
}

func load(t *testing.T, path string, into any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(text(t, path)), into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func text(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
