// SPDX-License-Identifier: Apache-2.0

package connectsim

import (
	"slices"
	"strings"
)

var artefactRoutes = []route{
	{"POST", "/organisation/artefacts", "", createArtefact},
	{"GET", "/organisation/artefacts", "", listArtefacts},
	{"GET", "/organisation/artefacts/{id}", Current, getArtefact},
	{"DELETE", "/organisation/artefacts/{id}", "", deleteArtefact},
}

// artefactRows is what others can do to the listing.
var artefactRows = &rows{
	insert: func(o *Organisation, name string) {
		o.addArtefact(name, "https://example.com/"+name+".tar.zst", strings.Repeat("0", 64))
	},
	remove: func(o *Organisation, name string) { each(o.artefacts, name, nameOf, o.removeArtefact) },
}

// Artefact is an update artefact.
type Artefact struct {
	ID, Name, URI, Checksum string
	// Deployed says that a deployment was made, or merely tried: it can never
	// be deleted again.
	Deployed bool
}

func showArtefact(a *Artefact) object {
	return object{"id": a.ID, "name": a.Name, "uri": a.URI, "checksum": a.Checksum}
}

func createArtefact(c *call) reply {
	p, valid := c.params(true)
	if !valid {
		return c.bad("The body cannot be parsed")
	}
	name, _ := p.text("name")
	uri, _ := p.text("uri")
	checksum, _ := p.text("checksum")
	switch {
	case strings.TrimSpace(name) == "":
		return validation("Name can't be blank")
	case strings.TrimSpace(uri) == "":
		return validation("Uri can't be blank")
	case !isHex(checksum, 64):
		return validation("Checksum is invalid")
	case c.org.artefacts.find(name) != nil:
		return validation("Name has already been taken")
	}
	return created(showArtefact(c.org.addArtefact(name, uri, checksum)))
}

func listArtefacts(c *call) reply {
	all := c.org.artefacts.sorted
	if prefix := strings.ToLower(c.URL.Query().Get("name")); prefix != "" && !c.older() {
		all = slices.DeleteFunc(slices.Clone(all), func(a *Artefact) bool {
			return !strings.HasPrefix(strings.ToLower(a.Name), prefix)
		})
	}
	return page(c, "artefacts", all, showArtefact)
}

func getArtefact(c *call) reply {
	return get(c, c.org.artefacts, showArtefact)
}

func deleteArtefact(c *call) reply {
	a, found := c.org.artefacts.byID[c.PathValue("id")]
	switch {
	case !found:
		return c.notFound()
	case a.Deployed:
		return invalid("Cannot delete artefacts that have been deployed")
	}
	c.org.removeArtefact(a)
	return c.deleted(showArtefact(a))
}

func (o *Organisation) addArtefact(name, uri, checksum string) *Artefact {
	a := &Artefact{ID: newID(), Name: name, URI: uri, Checksum: checksum}
	o.artefacts.add(a.ID, a)
	o.server.touch()
	return a
}

func (o *Organisation) removeArtefact(a *Artefact) {
	o.artefacts.remove(a.ID)
	o.server.touch()
}

// Artefacts returns the organisation's artefacts.
func (o *Organisation) Artefacts() []Artefact {
	o.server.mu.Lock()
	defer o.server.mu.Unlock()
	return copies(o.artefacts.sorted)
}

// AddArtefact makes an artefact, as another person would.
func (o *Organisation) AddArtefact(name, uri, checksum string) Artefact {
	o.server.mu.Lock()
	defer o.server.mu.Unlock()
	return *o.addArtefact(name, uri, checksum)
}

// RemoveArtefact removes an artefact, as another person would, even one that the
// API would keep.
func (o *Organisation) RemoveArtefact(id string) {
	o.server.mu.Lock()
	defer o.server.mu.Unlock()
	if a, found := o.artefacts.byID[id]; found {
		o.removeArtefact(a)
	}
}

// MarkDeployed makes the API keep an artefact for ever.
func (o *Organisation) MarkDeployed(id string) {
	o.server.mu.Lock()
	defer o.server.mu.Unlock()
	if a, found := o.artefacts.byID[id]; found {
		a.Deployed = true
		o.server.touch()
	}
}

func isHex(s string, length int) bool {
	return len(s) == length && strings.Trim(s, "0123456789abcdefABCDEF") == ""
}
