// The system topic of the upload account: ours, or the one that is there already.

param name string
param create bool
param location string
param sourceAccountId string

resource ownTopic 'Microsoft.EventGrid/systemTopics@2025-02-15' = if (create) {
  name: name
  location: location
  identity: {
    type: 'SystemAssigned'
  }
  properties: {
    source: sourceAccountId
    topicType: 'Microsoft.Storage.StorageAccounts'
  }
}

resource foundTopic 'Microsoft.EventGrid/systemTopics@2025-02-15' existing = if (!create) {
  name: name
}

output name string = name
// The hook has made sure that a topic which is not ours has an identity.
output principalId string = create ? ownTopic.identity.principalId : foundTopic.identity.principalId
