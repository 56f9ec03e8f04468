// SPDX-License-Identifier: Apache-2.0

package connectsim

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Whoever adds a collection to the API is told where the simulator has to know of it besides.
func TestEveryCollectionCanBeSeenAndMoved(t *testing.T) {
	s := New(Options{})
	defer s.Close()
	s.AddOrganisation(NewSecret("rporg_"))
	recorder := httptest.NewRecorder()
	s.Admin(t.Context(), "").ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/_sim/state", nil))
	var state map[string]map[string]any
	if err := json.Unmarshal(recorder.Body.Bytes(), &state); err != nil {
		t.Fatal(err)
	}
	for _, row := range managementRoutes {
		if row.method != http.MethodGet || strings.HasSuffix(row.path, "/{id}") {
			continue
		}
		collection := strings.ReplaceAll(row.path[strings.LastIndex(row.path, "/")+1:], "-", "_")
		if _, shown := state["organisation-1"][collection]; !shown {
			t.Errorf("/_sim/state does not show the %s: add them in admin.go", collection)
		}
		if _, known := listings[row.path]; !known {
			t.Errorf("nobody can move the rows of GET %s while it is read: say in listings of routes.go what others can do to it", row.path)
		}
	}
}
